#!/bin/sh
# Record traffic.pcap: a device and a server in two network namespaces, joined by a veth pair, talk
# with real programs. The capture is taken at the server's end. Run as root; everything is removed
# again, except the capture.
#
#   examples/firewall/record.sh [FILE]
#
# Debian packages: iproute2 ethtool tshark (dumpcap) iputils-ping curl python3 python3-scapy
# mosquitto mosquitto-clients dnsmasq-base bind9-dnsutils libcoap3-bin socat
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/traffic.pcap}
dev=kiln-dev-$$
srv=kiln-srv-$$
dir=$(mktemp -d /tmp/kiln-record.XXXXXX)
pids=

cleanup() {
	for pid in $pids; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	ip netns del "$dev" 2>/dev/null
	ip netns del "$srv" 2>/dev/null
	rm -rf "$dir"
}
trap 'set +e; cleanup' EXIT
trap 'exit 130' INT TERM

in_dev() { nsenter --net="/run/netns/$dev" "$@"; }
in_srv() { nsenter --net="/run/netns/$srv" "$@"; }

# background COMMAND...: run at the server until the end
background() {
	nsenter --net="/run/netns/$srv" "$@" >"$dir/log" 2>&1 &
	pids="$! $pids"
}

# until_ready COMMAND...: up to five seconds
until_ready() {
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 50 ] || { echo "record.sh: not ready: $*" >&2; exit 1; }
		sleep 0.1
	done
}

ip netns add "$dev"
ip netns add "$srv"
ip link add veth0 netns "$dev" address 02:00:00:00:20:02 type veth \
	peer name veth0 netns "$srv" address 02:00:00:00:20:01
for ns in "$dev" "$srv"; do
	ip -n "$ns" link set lo up
	# What is captured shall be what a wire would carry: no segments of 64 KiB, real checksums.
	nsenter --net="/run/netns/$ns" ethtool -K veth0 tso off gso off gro off tx off \
		rxvlan off txvlan off >/dev/null 2>&1 || true
	ip -n "$ns" link set veth0 up
	# The guest network: VLAN 42 on the same wire.
	ip -n "$ns" link add guest type veth peer name port42
	nsenter --net="/run/netns/$ns" ethtool -K guest tso off gso off gro off tx off >/dev/null 2>&1 || true
	ip -n "$ns" link set guest mtu 1496 up
	ip -n "$ns" link set port42 up
	nsenter --net="/run/netns/$ns" "$here/access_port.py" veth0 port42 42 >/dev/null 2>&1 &
	pids="$! $pids"
done
address() { ip -n "$1" address add "$2" dev "$3" ${4:-}; }
address "$srv" 10.20.0.1/24 veth0
address "$srv" 2001:db8:20::1/64 veth0 nodad
address "$srv" 10.42.0.1/24 guest
address "$dev" 10.20.0.2/24 veth0
address "$dev" 10.20.0.66/24 veth0
address "$dev" 2001:db8:20::2/64 veth0 nodad
address "$dev" 2001:db8:20::66/64 veth0 nodad
address "$dev" 10.42.0.2/24 guest

mkdir "$dir/www"
seq 1 4000 >"$dir/www/readings.csv"
printf '{"device":"d1","celsius":21.5}\n' >"$dir/www/last.json"
printf 'listener 1883\nallow_anonymous true\n' >"$dir/mosquitto.conf"
chmod -R a+rX "$dir"
background python3 -m http.server 8080 --bind :: --directory "$dir/www"
background mosquitto -c "$dir/mosquitto.conf"
background dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root \
	--listen-address=10.20.0.1 --listen-address=2001:db8:20::1 --bind-interfaces \
	--address=/broker.lab/10.20.0.1 --address=/broker.lab/2001:db8:20::1
background coap-server-notls -A 10.20.0.1
background socat -u UDP4-RECV:9999 OPEN:/dev/null
until_ready in_srv curl -s http://127.0.0.1:8080/last.json
until_ready in_srv mosquitto_pub -h 127.0.0.1 -t probe -m 1
until_ready in_srv dig +time=1 +tries=1 @10.20.0.1 broker.lab

background dumpcap -q -P -i veth0 -w "$dir/traffic.pcap"
capture=${pids%% *}
until_ready test -s "$dir/traffic.pcap"
sleep 0.5

dig4() { in_dev dig +time=2 +tries=1 "$@"; }
{
	dig4 @10.20.0.1 broker.lab A
	dig4 @2001:db8:20::1 broker.lab AAAA
	dig4 @10.20.0.1 nowhere.lab A
	for n in 1 2 3 4 5; do
		in_dev mosquitto_pub -h 10.20.0.1 -q 1 -t sensors/d1 -m "{\"celsius\":2$n.5}"
	done
	in_dev mosquitto_pub -h 2001:db8:20::1 -A 2001:db8:20::2 -q 1 -t sensors/d1 -m '{"celsius":22}'
	# The stolen sensor: an address that the firewall does not trust any more.
	in_dev mosquitto_pub -h 2001:db8:20::1 -A 2001:db8:20::66 -q 1 -t sensors/d66 -m '{"celsius":99}'
	in_dev mosquitto_pub -h 10.20.0.1 -A 10.20.0.66 -q 1 -t sensors/d66 -m '{"celsius":99}'
	in_dev curl -s http://10.20.0.1:8080/readings.csv
	in_dev curl -s --interface 10.20.0.66 http://10.20.0.1:8080/last.json
	in_dev curl -s 'http://[2001:db8:20::1]:8080/last.json'
	in_dev coap-client-notls -m get -B 2 coap://10.20.0.1/
	in_dev coap-client-notls -m get -B 2 coap://10.20.0.1/time
	in_dev ping -c 3 -i 0.2 10.20.0.1
	in_dev ping -c 2 -i 0.2 -s 3000 10.20.0.1                # three fragments each way
	in_dev ping -c 2 -i 0.2 2001:db8:20::1
	in_dev ping -c 1 -s 3000 2001:db8:20::1
	in_dev ping -c 2 -i 0.2 10.42.0.1                        # tagged
	in_dev curl -s http://10.42.0.1:8080/last.json           # tagged
	printf 'temperature 21.5\n' | in_dev socat -u - UDP4-SENDTO:10.20.0.1:9999
	printf 'knock\n' | in_dev socat -T 1 - TCP4:10.20.0.1:23 # nobody listens: reset
} >"$dir/clients.log" 2>&1 || true

# What no honest program sends.
in_dev /usr/bin/python3 "$here/malformed.py" veth0
sleep 1
kill "$capture"
wait "$capture" 2>/dev/null || true
install -m 644 "$dir/traffic.pcap" "$out"
echo "$out: $(stat -c %s "$out") bytes"
