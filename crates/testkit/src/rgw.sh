# Ceph's S3 gateway over one monitor and one storage daemon that keeps everything in memory.
# Arguments: an empty folder, two free ports, access key, secret. Says "ready" on standard output
# and runs until its standard input ends; then nothing of it is left.
set -eu
dir=$1 mon_port=$2 rgw_port=$3 access_key=$4 secret=$5
for program in ceph ceph-mon ceph-osd radosgw radosgw-admin monmaptool; do
  command -v "$program" >/dev/null || {
    echo "\`$program\` is missing; hint: apt-get install radosgw ceph-mon ceph-osd ceph-common" >&2
    exit 1
  }
done

fsid=$(cat /proc/sys/kernel/random/uuid)
export CEPH_CONF="$dir/ceph.conf"
cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$mon_port
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
ms bind ipv6 = false
public addr = 127.0.0.1
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
mon max pg per osd = 1000
run dir = $dir
pid file = $dir/\$name.pid
admin socket = $dir/\$name.asok
log file = $dir/\$name.log
mon cluster log file = $dir/cluster.log
mon data = $dir/mon
osd data = $dir/osd
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$rgw_port
rgw enable usage log = false
CONF

pids=
stop() {
  trap - EXIT
  for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM HUP

# Runs a command until it succeeds; a daemon that died ends the wait.
await() {
  for _ in $(seq 600); do
    for pid in $pids; do
      kill -0 "$pid" 2>/dev/null || { tail -n 20 "$dir"/*.log "$dir"/*.out >&2; exit 1; }
    done
    if "$@" >"$dir/await.out" 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "gave up waiting for: $*" >&2
  cat "$dir/await.out" >&2
  exit 1
}

mkdir "$dir/mon" "$dir/osd" "$dir/rgw"
monmaptool --create --addv a "v1:127.0.0.1:$mon_port" --fsid "$fsid" "$dir/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$dir/monmap" >"$dir/mkfs.out" 2>&1
ceph-mon -f -i a >"$dir/mon.out" 2>&1 </dev/null &
pids="$pids $!"
await timeout 5 ceph -s
timeout 30 ceph osd create >/dev/null
ceph-osd -i 0 --mkfs >>"$dir/mkfs.out" 2>&1
timeout 30 ceph osd crush add osd.0 1.0 root=default host=h >/dev/null 2>&1
ceph-osd -f -i 0 >"$dir/osd.out" 2>&1 </dev/null &
pids="$pids $!"
osd_is_up() { timeout 5 ceph osd stat | grep -q '1 up'; }
await osd_is_up
radosgw -f -n client.rgw >"$dir/rgw.out" 2>&1 </dev/null &
pids="$pids $!"
gateway_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$rgw_port"); }
await gateway_listens
timeout 60 radosgw-admin user create --uid test --display-name test \
  --access-key "$access_key" --secret-key "$secret" >"$dir/user.out" 2>&1 || {
  cat "$dir/user.out" >&2
  exit 1
}
echo ready
# Ends when whoever started this ends, however that is.
cat >/dev/null
