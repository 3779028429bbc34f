#!/bin/sh
# Write docker/.env, which compose reads: the digests that the tags of the compose files have now. It needs a registry, and crane or
# docker with buildx; nothing is written unless every image has one.
set -eu
cd "$(dirname "$0")"

digest() {
  if command -v crane >/dev/null; then
    crane digest "$1"
  elif docker buildx version >/dev/null 2>&1; then
    docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1"
  else
    echo "docker/digests.sh: neither crane nor docker with buildx is here" >&2
    return 1
  fi
}

lines='# The images of the compose files by digest; `make docker-digests` writes this file anew.'
for pair in $(sed -n 's/.*${\([A-Z]*_IMAGE\):-\([^}]*\)}.*/\1=\2/p' compose.yaml compose.tls.yaml | sort -u); do
  found=$(digest "${pair#*=}")
  case $found in
    sha256:*) lines="$lines
$pair@$found" ;;
    *) echo "docker/digests.sh: no digest for ${pair#*=}: $found" >&2; exit 1 ;;
  esac
done
printf '%s\n' "$lines" | tee .env
