#!/bin/sh
# Makes setup/requirements.lock from setup/requirements.in (maintainers only; needs `uv`).
# The lock names no index: pip uses whatever it is configured for.
set -eu
cd "$(dirname "$0")"
left_out=$(mktemp)
trap 'rm -f "$left_out"' EXIT
# torch (and with it CUDA): bootstrap.py picks the build that fits the machine.
# lark-parser: the old name of lark; both install the same module. notify2: desktop pop-ups.
for name in torch lark-parser notify2; do
    printf '%s ; python_version < "3"\n' "$name"
done >"$left_out"
uv pip compile requirements.in --output-file requirements.lock --override "$left_out" \
    --universal --python-version 3.10 --generate-hashes --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links --only-binary :all: --no-binary empy --quiet "$@"
if grep -Eq '^(torch|triton|nvidia-|lark-parser)' requirements.lock; then
    echo "lock.sh: torch or CUDA got into the lock file" >&2
    exit 1
fi
