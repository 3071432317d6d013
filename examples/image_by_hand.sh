#!/usr/bin/env bash
# Build the image of examples/Dockerfile where no registry of images can be reached, and run a command in it: a Debian made by debootstrap
# stands in for the base image, podman does the rest (apt-get install debootstrap podman runc). Linux, as root, with a package index; 6 GB.
#   examples/image_by_hand.sh WORK                                       # build, and have the image verify its models
#   examples/image_by_hand.sh WORK DATA translate --in t1 --out t2       # the same, then a command; DATA is its working folder
# The base is Debian's Python (bookworm: 3.11), not the official image's: what is proven is that the Dockerfile's own steps succeed, and that
# the image runs with a read-only root, a uid without name and home, and no network. Built once, the image is kept (podman rmi localdiff).
#   SUITE=bookworm    Debian's release           WHEELS=folder    wheels that pip may take besides the index
#   TORCH_INDEX=URL   PyTorch's index            IMAGE_UID=54321  the uid; it must be allowed to write DATA
set -euo pipefail
work=${1:?usage: image_by_hand.sh WORK [DATA COMMAND...]}
data=$(realpath "${2:-$work}")
cd "$(dirname "$0")/.."
base=$(sed -n 's/^FROM //p' examples/Dockerfile)

if ! podman image exists localdiff; then
    root=$work/base
    rm -rf "$root"
    debootstrap --variant=minbase --include=python3-pip,python-is-python3,ca-certificates "${SUITE:-bookworm}" "$root"
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED # the official image has no such rule for its pip
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"; fi
    wheels=()
    if [ -n "${WHEELS:-}" ]; then
        printf '[global]\nfind-links = /wheels\n' >"$root/etc/pip.conf"
        wheels=(--volume "$(realpath "$WHEELS"):/wheels:ro")
    fi
    tar -C "$root" -c . | podman import --quiet - "docker.io/library/$base"
    podman build --isolation=chroot --pull=never --network host "${wheels[@]}" ${TORCH_INDEX:+--build-arg TORCH_INDEX="$TORCH_INDEX"} \
        --tag localdiff --file examples/Dockerfile .
    rm -rf "$root"
fi
run=(podman --runtime runc run --rm --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --network none --read-only --tmpfs /tmp
    --user "${IMAGE_UID:-54321}:${IMAGE_UID:-54321}" --volume "$data:/data" localhost/localdiff)
"${run[@]}" models verify
if [ $# -gt 2 ]; then "${run[@]}" "${@:3}"; fi
