#!/bin/sh
# What the tests need of the system beside Python. Root gets what is missing installed, others are told in one line.
set -eu
PATH=$PATH:/usr/sbin
missing=

# need PACKAGE TEST...: the package is missing if the test fails.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

need strace command -v strace # shows that an acknowledged write was synced before the answer
need pgbouncer command -v pgbouncer
[ -n "${FORGE_TEST_PG_BIN:-}" ] || need postgresql ls /usr/lib/postgresql/*/bin/postgres # a second version, beside the wheel's

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "the tests need the Debian packages$missing: sudo sh tests/check-system.sh installs them and starts no service" >&2
    exit 1
fi

# The tests start servers of their own. The packages would start theirs, and PostgreSQL's would make a database first.
policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || policy=
cluster=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
trap 'rm -f $policy $cluster' EXIT
if [ -n "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
mkdir -p "${cluster%/*}"
echo 'create_main_cluster = false' >$cluster

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # several packages
apt-get install -qq -y --no-install-recommends $missing >/dev/null
case $missing in *pgbouncer*) ! command -v systemctl >/dev/null || systemctl --quiet disable pgbouncer ;; esac
