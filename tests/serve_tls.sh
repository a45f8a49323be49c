#!/bin/sh
# serve_tls - the endpoint with TLS, client certificates, tokens and unix sockets, asked by curl; certificates are made by openssl.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
TMP=$(mktemp -d) || exit 1
HOST=
trap '[ -z "$HOST" ] || kill "$HOST" 2>/dev/null; rm -rf "$TMP"' EXIT
for tool in curl openssl; do
    command -v $tool > /dev/null || skip "no $tool"
done
cd "$TMP" || exit 1

authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.pem" -days 2 -subj "/CN=$1" > /dev/null 2>&1; }
# signed NAME BY DAYS EXTENSIONS
signed() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" > /dev/null 2>&1
    printf '%s\n' "$4" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -out "$1.pem" -days "$3" -extfile "$1.ext" > /dev/null 2>&1
}
authority ca
authority other
signed server ca 2 "subjectAltName=IP:127.0.0.1"
signed client ca 2 "extendedKeyUsage=clientAuth"
signed plain ca 2 "basicConstraints=CA:FALSE"
signed notclient ca 2 "extendedKeyUsage=serverAuth"
signed stranger other 2 "extendedKeyUsage=clientAuth"
signed expired ca -1 "extendedKeyUsage=clientAuth"
[ -s server.pem ] && [ -s stranger.pem ] || { echo "not ok serve_tls: openssl makes no certificates"; exit 1; }

mkfifo in
begin() { # options
    "$B/tests/prog/serve_host" "$@" < in > out 2> err &
    HOST=$!
    exec 9> in
    until_it 10 [ -s out ]
    port=$(sed -n 's/port //p' out)
}
end() {
    exec 9>&-
    wait "$HOST" || { echo "not ok $1 ends well: exit code $?"; bad=1; }
    HOST=
    rm -f out
}
# is NAME CODE OPTIONS...: what curl gets. 000: no answer
is() {
    name=$1 want=$2
    shift 2
    code=$(curl -s -m 10 -o body -w '%{http_code}' "$@")
    if [ "$code" = "$want" ]; then echo "ok $name"; else echo "not ok $name: $code, not $want"; head -c 300 body; bad=1; fi
}
path=/debug/pprof/heap

begin tls_cert=server.pem tls_key=server.key
is "TLS on loopback" 200 --cacert ca.pem "https://127.0.0.1:$port$path"
is "TLS 1.1 is refused" 000 --cacert ca.pem --tls-max 1.1 "https://127.0.0.1:$port$path"
is "no TLS is refused" 000 "http://127.0.0.1:$port$path"
end TLS

begin tls_cert=server.pem tls_key=server.key tls_client_ca=ca.pem address=0.0.0.0
is "client certificate" 200 --cacert ca.pem --cert client.pem --key client.key "https://127.0.0.1:$port$path"
is "client certificate, for any purpose" 200 --cacert ca.pem --cert plain.pem --key plain.key "https://127.0.0.1:$port$path"
is "no client certificate" 403 --cacert ca.pem "https://127.0.0.1:$port$path"
is "certificate of another authority" 403 --cacert ca.pem --cert stranger.pem --key stranger.key "https://127.0.0.1:$port$path"
is "certificate that is over" 403 --cacert ca.pem --cert expired.pem --key expired.key "https://127.0.0.1:$port$path"
is "certificate of a server" 403 --cacert ca.pem --cert notclient.pem --key notclient.key "https://127.0.0.1:$port$path"
is "heavy job over TLS" 200 --cacert ca.pem --cert client.pem --key client.key "https://127.0.0.1:$port/debug/pprof/trace?seconds=0.5"
grep -q "without the right token or certificate" err || { echo "not ok refusals are in the log"; bad=1; }
end "client certificates"

token=correct-horse-battery
begin tls_cert=server.pem tls_key=server.key tls_client_ca=ca.pem token=$token address=0.0.0.0
is "certificate and token" 200 --cacert ca.pem --cert client.pem --key client.key -H "Authorization: Bearer $token" "https://127.0.0.1:$port$path"
is "certificate without the token" 401 --cacert ca.pem --cert client.pem --key client.key "https://127.0.0.1:$port$path"
is "token without a certificate" 403 --cacert ca.pem -H "Authorization: Bearer $token" "https://127.0.0.1:$port$path"
end both

begin token=$token address=0.0.0.0
is "Bearer" 200 -H "Authorization: Bearer $token" "http://127.0.0.1:$port$path"
is "Basic" 200 -u "scraper:$token" "http://127.0.0.1:$port$path"
is "Basic, wrong" 401 -u "$token:scraper" "http://127.0.0.1:$port$path"
is "no token" 401 "http://127.0.0.1:$port$path"
if grep -q $token err; then echo "not ok the token is in the log"; bad=1; else echo "ok the token is not in the log"; fi
end token

begin unix_path="$TMP/socket"
is "unix socket" 200 --unix-socket "$TMP/socket" "http://anything$path"
end "unix socket"
[ ! -e socket ] || { echo "not ok the socket is removed"; bad=1; }

refused() { # name, sentence, options
    name=$1 sentence=$2
    shift 2
    "$B/tests/prog/serve_host" "$@" < /dev/null > out 2> err
    if grep -q "^refused .*$sentence" out; then echo "ok $name"; else echo "not ok $name:"; cat out err; bad=1; fi
}
refused "TLS without client certificates is not enough" "set a token" address=0.0.0.0 tls_cert=server.pem tls_key=server.key
refused "a key that is missing" "belong together" tls_cert=server.pem
refused "an authority alone" "belong together" tls_client_ca=ca.pem
refused "a file that is not there" "cannot be read" tls_cert=server.pem tls_key=nothing.key
refused "a key of another certificate" "libmicrohttpd cannot start" tls_cert=server.pem tls_key=client.key
refused "a file that is no certificate" "libmicrohttpd cannot start" tls_cert=server.ext tls_key=server.key
exit $bad
