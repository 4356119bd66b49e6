#!/bin/sh
# Makes the environment from scratch: tools/make_venv.sh DIRECTORY, run from the top of the project.
# Needs Python 3.11 or 3.12. Uses uv where it is on PATH, else that Python's own venv and pip.
set -eu

venv=$1

fits() {
    # Running it, not only finding it: a version manager's shim may be on PATH without the version behind it.
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

python=
for candidate in python3.11 python3.12 python3 python; do
    if fits "$candidate"; then
        python=$(command -v "$candidate")
        break
    fi
done
if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null) || found="no python3"
    echo "No Python 3.11 or 3.12 on PATH ($found); TensorFlow Text 2.20 runs on these two only." >&2
    echo "Install python3.11 or python3.12, then run make venv again." >&2
    exit 1
fi

if command -v uv >/dev/null 2>&1; then
    echo "Making $venv with $python and uv"
    # --seed puts pip into it, which users call for what else they need.
    uv venv --quiet --clear --seed --python "$python" "$venv"
    install="uv pip install --python $venv/bin/python"
else
    echo "Making $venv with $python and pip (about 3 GB; a few minutes)"
    if ! "$python" -m venv --clear "$venv"; then
        echo "$python cannot make environments. On Debian and Ubuntu: apt install python3-venv." >&2
        exit 1
    fi
    install="$venv/bin/python -m pip install --disable-pip-version-check"
fi
# Constraints pin what the requirements bring along. The package itself is built with the setuptools just installed.
$install --constraint constraints.txt --requirement requirements.txt --requirement requirements-dev.txt
$install --no-deps --no-build-isolation --editable .
