# firewalld with a bus of its own. It is killed, not stopped: stopped it would take its rules away.
. "$(dirname "$0")/prelude.sh"
mkdir -p /run/dbus /run/firewalld
private /etc/firewalld
private /var/log
sed -i 's|^FirewallBackend=.*|FirewallBackend=nftables|' /etc/firewalld/firewalld.conf
offline() { firewall-offline-cmd "$@" >/dev/null; }
offline --zone=internal --add-interface=toclient
offline --zone=external --add-interface=toserver
offline --zone=internal --add-port=7/udp
offline --zone=internal --add-rich-rule='rule port port=8443 protocol=tcp reject'
offline --zone=internal --add-rich-rule='rule family=ipv4 port port=8080 protocol=tcp drop'
offline --new-policy=through
offline --policy=through --add-ingress-zone=internal
offline --policy=through --add-egress-zone=external
offline --policy=through --set-target=DROP
offline --policy=through --add-port=80/tcp
offline --policy=through --add-port=7/udp
dbus-daemon --system --nofork --nopidfile >/run/bus.log 2>&1 &
bus=$!
firewalld --nofork --nopid >/run/said 2>&1 &
daemon=$!
trap 'kill -KILL $daemon $bus' EXIT
tries=0
until firewall-cmd --state >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat /run/said /run/bus.log >&2; exit 1; }
    sleep 0.2
done
