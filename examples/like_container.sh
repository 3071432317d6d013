#!/usr/bin/env bash
# Run a command as a container would, without an engine for containers: the root read-only, no network, a uid without name and home, an
# empty /tmp, and one folder that can be written, which is the working folder. Linux, as root; what is installed is what runs.
#   examples/like_container.sh DATA localdiff translate --in t1 --out t2
# LIKE_UID is the uid (54321); it must be allowed to read the Python that localdiff is installed in, and to write DATA.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: like_container.sh DATA COMMAND..." >&2
    exit 2
fi
data=$(realpath "$1")
exec unshare --mount --net -- bash -euo pipefail -c '
    mount --make-rprivate /
    mount --bind "$0" /mnt
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -o remount,bind,ro /
    cd /mnt
    exec setpriv --reuid "${LIKE_UID:-54321}" --regid "${LIKE_UID:-54321}" --clear-groups -- env -i PATH="$PATH" ${PYTHONPATH:+PYTHONPATH="$PYTHONPATH"} \
        LOGNAME=localdiff HOME=/nonexistent MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache PYTHONDONTWRITEBYTECODE=1 "$@"
' "$data" "${@:2}"
