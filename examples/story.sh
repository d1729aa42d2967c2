#!/usr/bin/env bash
# Every step of a sandbox's life with curl, through the gateway's own API.
#   set -a; . .ags-gateway/dev.env; set +a; examples/story.sh
set -euo pipefail
: "${AGS_GATEWAY_URL:?}" "${AGS_GATEWAY_KEY:?}"

api() { curl -sS --fail-with-body -H "Authorization: Bearer $AGS_GATEWAY_KEY" -H 'Content-Type: application/json' "$@"; }
id_of() { sed -n 's/.*"id":"\('"$1"'[0-9a-z]*\)".*/\1/p' | head -n 1; }

tool=$(api "$AGS_GATEWAY_URL/v1/tools?wait=30s" -d "{\"name\": \"story-$$\", \"type\": \"code-interpreter\"}" | id_of tool)
echo "tool $tool"
instance=
cleanup() {
  [ -z "$instance" ] || api -X DELETE "$AGS_GATEWAY_URL/v1/instances/$instance" || true
  api -X DELETE "$AGS_GATEWAY_URL/v1/tools/$tool"
}
trap cleanup EXIT

# The key makes a repetition safe: the same instance is answered, not a second one started.
instance=$(api "$AGS_GATEWAY_URL/v1/instances?wait=60s" -H "Idempotency-Key: story-$tool" \
  -d "{\"tool\": \"$tool\", \"timeout\": \"10m\"}" | id_of ins)
sandbox=$AGS_GATEWAY_URL/v1/instances/$instance
echo "instance $instance"

echo "a command:"
api "$sandbox/exec" -d '{"cmd": "uname -s; id -un"}'
echo
echo "as it comes, one event a line:"
api -N -H 'Accept: application/x-ndjson' "$sandbox/exec" -d '{"cmd": "for i in 1 2 3; do echo line $i; sleep 0.2; done"}'

echo "in the background, and its output afterwards:"
exec=$(api "$sandbox/exec" -d '{"cmd": "echo begun; sleep 0.3; echo done", "background": true}' | id_of exec)
api -N -H 'Accept: application/x-ndjson' "$sandbox/execs/$exec/output?follow=true"

echo "code, with a result:"
api "$sandbox/code" -d '{"code": "print(\"adding\"); sum([1, 2, 3])"}'
echo

echo "a file, up and down:"
api -X PUT --data-binary 'hello' -H 'Content-Type: application/octet-stream' "$sandbox/files?path=/tmp/hello.txt"
echo
api "$sandbox/files?path=/tmp/hello.txt"
echo

echo "the address of a port:"
api "$sandbox/url?port=8000"
echo

echo "what runs:"
api "$AGS_GATEWAY_URL/v1/instances?tool=$tool&status=RUNNING" | id_of ins
