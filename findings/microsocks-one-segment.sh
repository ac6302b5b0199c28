#!/usr/bin/env bash
# microsocks drops what arrives in one segment with the greeting. A client that offers one method and sends its request
# without waiting for the choice, which saves a round trip, gets the choice, and then never an answer.
# Version: microsocks 1.0.3-2 (Debian 12). Needs: Debian 12, python3.
# Does: sends greeting and CONNECT to a local server apart, then in one segment; waits 3 s for the reply.
# Output:
#   apart: method 0, then reply 0
#   in one segment: method 0, then no reply
. "$(dirname "$0")/common.sh"
unpack microsocks=1.0.3-2
proxy=$(free_port)
root/usr/bin/microsocks -i 127.0.0.1 -p "$proxy" > log 2>&1 &
cat > ask.py <<'END'
import socket, struct, sys, time
proxy = ("127.0.0.1", int(sys.argv[1]))
server = socket.create_server(("127.0.0.1", 0))
greeting = b"\x05\x01\x00"
request = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack(">H", server.getsockname()[1])
for _ in range(100):
    try:
        socket.create_connection(proxy).close()
        break
    except OSError:
        time.sleep(0.1)
for name, first, second in [("apart", greeting, request), ("in one segment", greeting + request, b"")]:
    client = socket.create_connection(proxy, timeout=3)
    client.sendall(first)
    method = client.recv(2)[1]
    client.sendall(second)
    try:
        reply = f"reply {client.recv(10)[1]}"
    except TimeoutError:
        reply = "no reply"
    print(f"{name}: method {method}, then {reply}")
END
python3 ask.py "$proxy" | check
