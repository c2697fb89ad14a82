#!/bin/sh
# The same set through a Ray cluster: pip install 'synthgen[ray]' on every node, and a folder or URL they all reach.
#
#     ray start --head                                  # on one machine
#     ray start --address=HEAD:6379                     # on every other
#     ADDRESS=HEAD:6379 OUT=/shared/set examples/ray.sh
#
# Without ADDRESS it joins the cluster of this machine or begins one on it. Nodes may be lost meanwhile.
set -eu
set -- --count "${COUNT:-60000}" --format tfrecord --out "${OUT:-ray-set}" --engine ray
if [ -n "${ADDRESS:-}" ]; then set -- "$@" --address "$ADDRESS"; fi
synthgen export "$@" --resume
