#!/bin/sh
# Runs the tests of the Django integration on Django 6, which is the first with tasks of its own and needs Python 3.12.
set -eu
venv=.venv-django6

# A Python that is new enough: the one that is asked for, or the newest there is.
find_python() {
    for python in "${DJANGO6_PY:-}" python3.14 python3.13 python3.12 python3 \
        "$HOME"/.pyenv/versions/3.14*/bin/python "$HOME"/.pyenv/versions/3.1[23]*/bin/python; do
        [ -n "$python" ] || continue
        "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || continue
        echo "$python"
        return
    done
    echo "Django 6 needs Python 3.12 or newer: install python3.12 with python3.12-venv, or make django6 DJANGO6_PY=/path/to/python3.12" >&2
    return 1
}

if [ ! -e $venv/.ready ] || [ pyproject.toml -nt $venv/.ready ]; then
    python=$(find_python)
    "$python" -m venv --clear $venv
    $venv/bin/python -m pip install -q --disable-pip-version-check -e '.[test]' 'Django>=6'
    touch $venv/.ready
fi
$venv/bin/python -c 'import django, sys; print(f"Django {django.__version__} on Python {sys.version.split()[0]}")'
$venv/bin/pytest -q -p no:cacheprovider -m 'slow or not slow' tests/frameworks/test_django.py
$venv/bin/pytest -q -p no:cacheprovider tests/integrations -k 'django or Django'
