# What each of the scripts begins with: it runs in mount and network namespaces of its own. What a
# program writes lands in memory that goes with the namespace, never in the machine's files.
set -eu
umask 022
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/private

# A copy of a directory, mounted over it.
private() {
    copy=/run/private/$(echo "$1" | tr / _)
    mkdir "$copy"
    cp -a "$1/." "$copy"
    mount --bind "$copy" "$1"
}

# iptables writes nf_tables here, whatever the machine has chosen.
private /etc/alternatives
for name in iptables ip6tables; do
    for tool in "" -save -restore; do
        ln -sf "/usr/sbin/$name-nft$tool" "/etc/alternatives/$name$tool"
    done
done
nft flush ruleset
