#!/usr/bin/env bash
# Run a command as a container would, without an engine for containers: the root read-only, no network, a uid without name and home, an
# empty /tmp, and one folder that can be written, which is the working folder. Linux, as root; what is installed is what runs.
#   examples/like_container.sh DATA localdiff translate --in t1 --out t2
# LIKE_UID is the uid (54321); it must be allowed to read the Python that localdiff is installed in, and to write DATA. LIKE_KEEP names
# folders below /tmp, with colons between them, that stay: a checkout or an environment that lies there.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: like_container.sh DATA COMMAND..." >&2
    exit 2
fi
data=$(realpath "$1")
exec unshare --mount --net -- bash -euo pipefail -c '
    mount --make-rprivate /
    mount --bind "$0" /mnt
    IFS=: read -ra kept <<<"${LIKE_KEEP:-}"
    for i in "${!kept[@]}"; do exec {place}<"${kept[$i]}"; places[i]=$place; done
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    for i in "${!kept[@]}"; do
        mkdir -p "${kept[$i]}"
        mount --no-canonicalize --bind "/proc/self/fd/${places[$i]}" "${kept[$i]}"
        mount -o remount,bind,ro "${kept[$i]}"
    done
    mount -o remount,bind,ro /
    cd /mnt
    exec setpriv --reuid "${LIKE_UID:-54321}" --regid "${LIKE_UID:-54321}" --clear-groups -- env -i PATH="$PATH" ${PYTHONPATH:+PYTHONPATH="$PYTHONPATH"} \
        LOGNAME=localdiff HOME=/nonexistent MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache PYTHONDONTWRITEBYTECODE=1 "$@"
' "$data" "${@:2}"
