# Sourced by the scripts of this folder: a temporary folder, a recorder of HTTP requests, a server of one page, the
# packages of each language, and the comparison. Needs bash and python3.
set -euo pipefail
script=$(readlink -f "$0")
work=$(mktemp -d)
clean_up() {
  local status=$?
  trap - EXIT
  kill -KILL $(jobs -p) 2> /dev/null || true
  wait 2> /dev/null || true
  rm -rf "$work"
  exit $status
}
trap clean_up EXIT
cd "$work"

# Starts one of the servers of this folder, and waits until it listens. Sets $port.
serve() {
  python3 "$(dirname "$script")/$1" "${@:2}" &
  until [ -s port ]; do sleep 0.1; done
  port=$(cat port)
}

# Starts a server that writes each request as a line `METHOD TARGET` to ./requests, its headers to ./headers and its
# body to ./body, and answers with a status and headers. Sets $port. Usage: record STATUS [HEADER: VALUE]…
record() {
  : > requests
  serve recorder.py "$@"
}

# Starts a server of ./page in the text format. Sets $port. The server reads the file at each request, and adds a byte to
# ./asked.
serve_page() {
  : > asked
  serve page.py
}

# Waits until the page was asked for that many times.
await_scrapes() {
  until [ "$(wc -c < asked)" -ge "$1" ]; do sleep 0.2; done
}

# Makes a virtual environment ./venv with packages of PyPI. Usage: python_with PACKAGE==VERSION…
python_with() {
  python3 -m venv venv
  venv/bin/pip install -q --disable-pip-version-check "$@"
}

# Installs packages of npm. Usage: node_with PACKAGE@VERSION…
node_with() {
  npm install --silent --no-audit --no-fund "$@"
}

# Makes ./push of C++ code on standard input, with Debian's prometheus-cpp 1.0.1.
build_cpp() {
  unpack prometheus-cpp-dev=1.0.1-1 libprometheus-cpp-push1.0=1.0.1-1 libprometheus-cpp-core1.0=1.0.1-1
  cat > push.cpp
  local lib
  lib=$(dirname "$(find "$work/root" -name 'libprometheus-cpp-push.so.1.0' | head -n 1)")
  c++ -Iroot/usr/include push.cpp -o push -L"$lib" -lprometheus-cpp-push -lprometheus-cpp-core \
    -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags -Wl,-rpath,"$lib"
}

# Makes ./push of Rust code on standard input. Usage: build_rust DEPENDENCIES, in the words of Cargo.toml.
build_rust() {
  mkdir -p project/src
  printf '[package]\nname = "push"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n%s\n' "$1" \
    > project/Cargo.toml
  cat > project/src/main.rs
  cargo build --quiet --manifest-path project/Cargo.toml --target-dir target
  cp target/debug/push push
}

# Waits until a URL is answered, for at most a minute. Usage: await URL
await() {
  python3 - "$1" <<'PYTHON'
import sys, time, urllib.error, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5)
        break
    except urllib.error.HTTPError:
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit(f"{sys.argv[1]} is not answered")
PYTHON
}

# A port that was free a moment ago.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Unpacks Debian packages of the pinned versions below ./root; nothing is installed. Usage: unpack PACKAGE=VERSION…
# SUITE names another suite of this machine's Debian mirror.
unpack() {
  mkdir -p lists/partial archives/partial root
  local options=(-qq -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Debug::NoLocking=1
    -o APT::Sandbox::User=root)
  if [ -n "${SUITE-}" ]; then
    local mirror
    mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
      sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' | grep -E '/debian/?$' | sed -n 1p)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main" > sources.list
    options+=(-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null)
  fi
  apt-get "${options[@]}" update
  apt-get "${options[@]}" download "$@"
  for package in *.deb; do dpkg -x "$package" root; done
}

# Compares standard input with the lines below `# Output:` in the header of the script. Exits 1 if they differ.
check() {
  cat > seen
  sed -n '/^# Output:/,/^[^#]/{s/^#   //p}' "$script" > expected
  cat seen
  if ! diff expected seen > difference; then
    echo "changed since it was found:" >&2
    cat difference >&2
    return 1
  fi
}
