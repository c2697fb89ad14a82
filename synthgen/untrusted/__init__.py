"""Reading what a stranger wrote: the only place that opens, unpacks and parses files that others may have made.

Paths go in; bytes, values and arrays come out, all of them bounded: regular files only, no device and no pipe, never
more bytes, digits, nesting or values than the caller expects, and no code. What is wrong is an OSError or a ValueError
of one line. The tests keep every other module from opening such a file (``tests/hostile/test_one_reader.py``).
"""

__all__ = ["archives", "datasets", "files", "pictures", "tables", "text"]
