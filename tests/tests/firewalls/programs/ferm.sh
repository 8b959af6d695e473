# ferm from a configuration of a router, for both families. It prefers the tools of iptables-legacy, by
# whole path; here those are the ones of iptables-nft.
. "$(dirname "$0")/prelude.sh"
cat >/run/private/tool <<'TOOL'
#!/bin/sh
name=$(basename "$0")
exec "/usr/sbin/${name%%-*}-nft${name#*-legacy}" "$@"
TOOL
chmod 755 /run/private/tool
mount --bind /run/private/tool /usr/sbin/xtables-legacy-multi
ferm "$(dirname "$0")/ferm.conf"
