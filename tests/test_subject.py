import pytest

from synthgen.subject import CLASS_NAMES, FASHION, Subject


def subject(**changes) -> Subject:
    return Subject(**{"name": "pets", "class_names": ("cat", "dog"), "licence": None, **changes})


def test_fashion_mnist_has_the_folders_it_had():
    folders = [FASHION.class_folder(label) for label in range(10)]
    assert (folders[0], folders[6], folders[9]) == ("0_t-shirt-top", "6_shirt", "9_ankle-boot")
    assert FASHION.class_names == CLASS_NAMES


@pytest.mark.parametrize("count", [2, 10, 11, 100, 101, 256])
def test_sorted_folders_are_in_label_order(count: int):
    many = subject(class_names=tuple(f"class {i}" for i in range(count)))
    folders = [many.class_folder(label) for label in range(count)]
    assert folders == sorted(folders)
    assert len({len(folder.partition("_")[0]) for folder in folders}) == 1


def test_folders_suit_every_file_system():
    long = subject(class_names=("ä" * 100, 'a/b\\c:d*e?f"g<h>i|j.', "...", "_"))
    folders = [long.class_folder(label) for label in range(4)]
    assert folders[1] == "1_a-b-c-d-e-f-g-h-i-j"
    assert folders[2] == "2_-"
    assert all(len(folder.encode()) < 255 for folder in folders)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "name ''"),
        ({"name": "x" * 101}, "expected 1 to 100"),
        ({"name": "a\nb"}, "printable"),
        ({"name": " a"}, "no space at the ends"),
        ({"name": 5}, "name is no text"),
        ({"licence": "\x1b[2J"}, "licence"),
        ({"class_names": ("cat",)}, "1 classes; expected 2 to 256"),
        ({"class_names": tuple(map(str, range(257)))}, "257 classes"),
        ({"class_names": ("cat", "")}, "class name ''"),
        ({"class_names": ("cat", None)}, "class name is no text"),
        ({"class_names": ("cat", "cat")}, "'cat' and 'cat' give the same folder"),
        ({"class_names": ("A/b", "a b")}, "'A/b' and 'a b' give the same folder"),
    ],
)
def test_what_is_no_subject_is_refused(changes, words: str):
    with pytest.raises(ValueError, match=words):
        subject(**changes)


def test_a_subject_survives_json():
    for some in (FASHION, subject(), subject(licence="CC0")):
        assert Subject.from_dict(some.to_dict()) == some


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"name": "a", "class_names": "ab", "licence": None}, {**FASHION.to_dict(), "more": 1}],
)
def test_other_documents_are_refused(document):
    with pytest.raises(ValueError, match=r"keys|list"):
        Subject.from_dict(document)
