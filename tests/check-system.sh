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
need nodejs command -v node # a worker in another language
need pgbouncer command -v pgbouncer
[ -n "${FORGE_CHROMIUM:-}" ] || need chromium command -v chromium # opens the dashboard
need fonts-dejavu-core ls /usr/share/fonts/truetype/dejavu # without a font a page is boxes
[ -n "${FORGE_TEST_PG_BIN:-}" ] || need postgresql ls /usr/lib/postgresql/*/bin/postgres # a second version, beside the wheel's

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "the tests need the Debian packages$missing: sudo sh tests/check-system.sh installs them and starts no service" >&2
    exit 1
fi

echo "installing what the tests need:$missing"

# The tests start servers of their own. The packages would start theirs, and PostgreSQL's would make a database first.
policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || policy=
cluster=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
log=$(mktemp)
trap 'rm -f $policy $cluster $log' EXIT
trap 'exit 1' HUP INT TERM
if [ -n "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
mkdir -p "${cluster%/*}"
echo 'create_main_cluster = false' >$cluster

{
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q &&
        apt-get install -q -y --no-install-recommends $missing &&
        case $missing in *pgbouncer*) ! command -v systemctl || systemctl disable pgbouncer ;; esac
} >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
