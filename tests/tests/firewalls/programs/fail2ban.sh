# fail2ban with a jail that bans by nftables and one that bans by iptables; $1 and $2 are who is banned.
# The server is killed, not stopped: stopped it would take its rules away.
. "$(dirname "$0")/prelude.sh"
mkdir /run/fail2ban
private /etc/fail2ban
private /var/lib/fail2ban
private /var/log
: >/run/empty.log
rm -f /etc/fail2ban/jail.d/*
cat >/etc/fail2ban/jail.local <<'JAILS'
[DEFAULT]
backend = polling
logpath = /run/empty.log
filter = sshd
chain = FORWARD

[by-nftables]
enabled = true
banaction = nftables-multiport
port = 1:65535
action = nftables-multiport[name=by-nftables, port="1-65535", chain_hook=forward]

[by-iptables]
enabled = true
action = iptables-multiport[name=by-iptables, port="1:65535", protocol=udp]
JAILS
client() { fail2ban-client -s /run/fail2ban/socket "$@"; }
fail2ban-server -xf -s /run/fail2ban/socket -p /run/fail2ban/pid -c /etc/fail2ban --loglevel WARNING start >/run/said 2>&1 &
server=$!
trap 'kill -KILL $server' EXIT
tries=0
until client ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat /run/said >&2; exit 1; }
    sleep 0.1
done
client set by-nftables banip "$1"
client set by-iptables banip "$2"
# Bans are made by a thread of the server.
tries=0
until nft list ruleset | grep -q "$1" && nft list ruleset | grep -q "$2"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { nft list ruleset >&2; cat /run/said >&2; exit 1; }
    sleep 0.1
done
