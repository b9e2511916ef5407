#!/bin/sh
# Makes setup/requirements.lock (the workspace), setup/metaworld.lock and setup/open3d.lock (the
# extras) from the .in files (maintainers only; needs `uv`).
# The locks name no index: pip uses whatever it is configured for.
set -eu
cd "$(dirname "$0")"
left_out=$(mktemp)
trap 'rm -f "$left_out"' EXIT
# torch (and with it CUDA): the set-up picks the build that fits the machine.
# lark-parser: the old name of lark; both install the same module. notify2: desktop pop-ups.
for name in torch lark-parser notify2; do
    printf '%s ; python_version < "3"\n' "$name"
done >"$left_out"
for lock in requirements metaworld open3d; do
    # Open3D goes into the workspace's environment, so it takes that one's versions.
    constraint=/dev/null
    [ "$lock" = open3d ] && constraint=requirements.lock
    uv pip compile "$lock.in" --output-file "$lock.lock" --override "$left_out" \
        --constraint "$constraint" \
        --universal --python-version 3.10 --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links --only-binary :all: --no-binary empy --quiet "$@"
    if grep -Eq '^(torch|triton|nvidia-|lark-parser)' "$lock.lock"; then
        echo "lock.sh: torch or CUDA got into $lock.lock" >&2
        exit 1
    fi
done
