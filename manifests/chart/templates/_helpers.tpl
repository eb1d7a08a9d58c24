{{/* The objects of a file of the kustomize manifests, in the namespace of the release. */}}
{{- define "file" -}}
{{- $text := .root.Files.Get (printf "files/%s" .path) -}}
{{- if not $text }}{{ fail (printf "the chart has no file %s" .path) }}{{ end -}}
{{- $text | replace "namespace: multi-networkpolicy-system" (printf "namespace: %s" .root.Release.Namespace) -}}
{{- end -}}

{{/* The folders of the sockets of container runtimes, by component, as YAML. */}}
{{- define "runtimes" -}}
{{- $c := .Values.components -}}
{{- $folders := dict "crio" "/run/crio" "k0s" "/run/k0s" "k3s" "/run/k3s/containerd" "microk8s" "/var/snap/microk8s/common/run" -}}
{{- $all := list -}}
{{- range $name := list "crio" "k0s" "k3s" "microk8s" -}}
{{- if or (has $name $c) (and (eq $name "crio") (has "openshift" $c)) -}}
{{- $all = append $all (dict "name" (printf "runtime-%s" $name) "path" (get $folders $name) "type" "DirectoryOrCreate") -}}
{{- end -}}
{{- end -}}
{{- if not $all -}}
{{- $all = list (dict "name" "runtime" "path" "/run/containerd" "type" "Directory") -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}
