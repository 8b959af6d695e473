# shorewall with two zones and the router itself; its compiler writes a script, which loads the rules.
. "$(dirname "$0")/prelude.sh"
private /etc/shorewall
private /var/lib/shorewall
cd /etc/shorewall
sed -i 's/^STARTUP_ENABLED=.*/STARTUP_ENABLED=Yes/; s/^IP_FORWARDING=.*/IP_FORWARDING=Keep/; s/^LOAD_HELPERS_ONLY=.*/LOAD_HELPERS_ONLY=Yes/; s/^DISABLE_IPV6=.*/DISABLE_IPV6=No/; s/^LOG_MARTIANS=.*/LOG_MARTIANS=Keep/' shorewall.conf
# Without helpers no module is loaded for one.
: >helpers
printf 'fw firewall\nin ipv4\nout ipv4\n' >zones
printf '?FORMAT 2\nin toclient\nout toserver\n' >interfaces
printf 'fw all ACCEPT\nin out REJECT\nout in DROP\nall all DROP\n' >policy
cat >rules <<'RULES'
?SECTION ALL
?SECTION ESTABLISHED
?SECTION RELATED
?SECTION INVALID
?SECTION UNTRACKED
?SECTION NEW
ACCEPT in out tcp 80,443
ACCEPT in out udp 7
DROP in out icmp
ACCEPT in fw tcp 22
ACCEPT in fw udp 7
REJECT in fw tcp 8443
RULES
shorewall compile /etc/shorewall /run/firewall
/run/firewall start
