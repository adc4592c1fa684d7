#!/bin/sh
# Runs mosquitto with CONFIG and makes it reload its lists when one of them changes: a revoked client is rejected
# without a restart. Usage: follow.sh CONFIG LIST...
config=$1
shift
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
