# ufw as a router has it: nothing in or through but what is allowed. Sysctls and modules are the lab's.
. "$(dirname "$0")/prelude.sh"
private /etc/ufw
private /etc/default
sed -i 's|^IPT_SYSCTL=.*|IPT_SYSCTL=/dev/null|; s|^IPT_MODULES=.*|IPT_MODULES=""|' /etc/default/ufw
sed -i 's|^DEFAULT_FORWARD_POLICY=.*|DEFAULT_FORWARD_POLICY="DROP"|' /etc/default/ufw
ufw default deny incoming
ufw default allow outgoing
ufw logging low
ufw limit 22/tcp
ufw allow proto udp to any port 7
ufw deny in on toclient to any port 8443 proto tcp
ufw reject 9
ufw allow from 10.77.2.0/24
ufw route allow in on toclient out on toserver to any port 80 proto tcp
ufw route allow in on toclient proto udp to any port 7
ufw route reject in on toclient to 172.17.0.2
ufw --force enable
