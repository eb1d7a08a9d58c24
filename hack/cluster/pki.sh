#!/bin/bash
# pki.sh [NODES]: creates a CA and a kubeconfig for each part of the cluster, new for each cluster.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
nodes=${1:-1}
umask 077
mkdir -p "$PKI"
cd "$PKI"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# cert NAME SUBJECT [SUBJECT_ALT_NAMES]: creates a key, and a certificate for both ends of a connection.
cert() {
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" 2> /dev/null -extfile - <<EOT
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = ${3:-DNS:$1}
EOT
}

# client NAME SUBJECT [SUBJECT_ALT_NAMES]: creates a key, a certificate and a kubeconfig that uses them.
client() {
  cert "$@"
  cat > "$1.kubeconfig" <<EOT
apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: {server: "https://$API_IP", certificate-authority: $PKI/ca.crt}
users:
- name: $1
  user: {client-certificate: $PKI/$1.crt, client-key: $PKI/$1.key}
contexts:
- name: $1
  context: {cluster: cluster, user: $1}
current-context: $1
EOT
}

key ca
openssl req -x509 -new -key ca.key -subj /CN=cluster-ca -days 30 -out ca.crt
key sa
openssl ec -in sa.key -pubout -out sa.pub 2> /dev/null
cert apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:$SERVICE_IP,IP:$API_IP"
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client multus /O=system:masters/CN=multus
for n in $(seq "$nodes"); do
  client "node$n" "/O=system:nodes/CN=system:node:node$n" "DNS:node$n,IP:10.79.0.$n"
done
