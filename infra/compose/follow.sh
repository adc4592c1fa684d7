#!/bin/sh
# Runs mosquitto with CONFIG and makes it reload its certificate and lists when one of these files changes: a revoked
# client is rejected, and a renewed certificate presented, without a restart. Usage: follow.sh CONFIG FILE...
config=$1
shift
# Each client holds a file. Mosquitto keeps the soft limit, which container runtimes may set to 1,024.
ulimit -S -n "$(ulimit -H -n)"
seen=$(cksum "$@")
mosquitto -c "$config" &
broker=$!
trap 'kill -TERM $broker' TERM INT
while kill -0 $broker 2>/dev/null; do
  # A signal ends the wait, but not a sleep.
  sleep 1 &
  wait $!
  now=$(cksum "$@") || continue
  if [ "$now" != "$seen" ]; then
    kill -HUP $broker
    seen=$now
  fi
done
wait $broker
