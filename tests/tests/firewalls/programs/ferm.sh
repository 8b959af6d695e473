# ferm from a configuration of a router, for both families.
. "$(dirname "$0")/prelude.sh"
ferm --fast "$(dirname "$0")/ferm.conf"
