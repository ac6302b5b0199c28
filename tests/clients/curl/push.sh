#!/bin/sh
# Pushes to the gateway given as the only argument with curl, as tests/clients/main.rs expects.
set -eu
group="$1/metrics/job@base64/Y3VybC9jbGllbnQ/path@base64/L3Zhci90bXA/empty@base64/=/name/%CE%A0%CF%81%CE%BF%CE%BC%CE%B7%CE%B8%CE%B5%CF%8D%CF%82/space/a%20b+c%25d"
# The user name and password, if the gateway needs them.
secrets() { [ -z "${PUSH_CA-}" ] || printf 'cacert = "%s"\nuser = "%s:%s"\n' "$PUSH_CA" "$PUSH_USER" "$PUSH_PASSWORD"; }
config=$(mktemp) && trap 'rm -f "$config"' EXIT && secrets >"$config"
gateway() { curl --config "$config" --fail-with-body --silent --show-error "$@"; }
push() { gateway --data-binary @- "$@"; }

echo 'client_old 1' | push -X PUT "$group"
push -X PUT "$group" <<END
client_value 41
# TYPE client_latency histogram
client_latency_bucket{le="0.1"} 0
client_latency_bucket{le="1"} 1
client_latency_bucket{le="+Inf"} 1
client_latency_sum 0.5
client_latency_count 1
END
printf 'client_value 42\nclient_added 7\n' | gzip | push -H 'Content-Encoding: gzip' "$group"

echo 'client_gone 1' | push "$1/metrics/job@base64/Y3VybC9jbGllbnQ/gone/yes"
gateway -X DELETE "$1/metrics/job@base64/Y3VybC9jbGllbnQ/gone/yes"
