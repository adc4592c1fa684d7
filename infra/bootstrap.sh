#!/usr/bin/env bash
# Installs the Debian packages for a local run, or with the argument `test` also those for the tests. Without missing
# packages it does nothing, and never runs the package manager.
set -euo pipefail
purpose=${1:-run}

packages=()
optional=()
has() { command -v "$1" >/dev/null 2>&1; }
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
# Not of the first line: with JAVA_TOOL_OPTIONS, that names the options.
java_version() { java -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p'; }

# Kafka is started with the Java of JAVA_HOME, if any. Debian installs mosquitto in a folder of root's path only.
export PATH=${JAVA_HOME:+$JAVA_HOME/bin:}$PATH:/usr/sbin:/usr/local/sbin
has mosquitto || packages+=(mosquitto)
{ has java && (($(java_version) >= 17)); } 2>/dev/null || packages+=(default-jre-headless)
has mvn || packages+=(maven)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3 python3-venv)
has prometheus || optional+=(prometheus)
has prometheus-alertmanager || has alertmanager || optional+=(prometheus-alertmanager)
if [[ $purpose == test ]]; then
    packages+=("${optional[@]}")
    optional=()
    has ffmpeg || packages+=(ffmpeg)
    has mosquitto_sub || packages+=(mosquitto-clients)
    # The browser for tests of the console's pages.
    has chromium || packages+=(chromium)
    # Debian installs the server in a folder named by version, outside of every user's path.
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || has initdb || packages+=(postgresql)
    if has dpkg-query; then
        # An RTSP server for tests: it runs in the system's own Python.
        for package in python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad,ugly}; do
            installed "$package" || packages+=("$package")
        done
    fi
fi
((${#packages[@]} + ${#optional[@]})) || exit 0

if ! has apt-get; then
    echo "missing, to be installed by hand (Debian's names): ${packages[*]} ${optional[*]}" >&2
    ((${#packages[@]} == 0))
    exit
fi
root=()
if ((EUID != 0)); then
    if ! { has sudo && sudo -n true 2>/dev/null; }; then
        echo "to be installed first: sudo apt-get install ${packages[*]} ${optional[*]}" >&2
        ((${#packages[@]} == 0))
        exit
    fi
    root=(sudo)
fi

# Packages would start their own broker and Prometheus. Ours start on request, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap '"${root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
fi
install() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}
# If the update fails, the earlier package lists may be enough. If not, the installation fails.
"${root[@]}" apt-get update -q || true
((${#packages[@]} == 0)) || install "${packages[@]}"
((${#optional[@]} == 0)) || install "${optional[@]}" || echo "going on without: ${optional[*]}" >&2
