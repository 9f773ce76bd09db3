{{- define "fanfare.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "fanfare.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fanfare.labels" -}}
{{ include "fanfare.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* A value as TOML writes it. JSON's strings and lists are TOML's too. */}}
{{- define "fanfare.toml.value" -}}
{{- if kindIs "float64" . }}{{ if eq . (floor .) }}{{ printf "%d" (int64 .) }}{{ else }}{{ . }}{{ end }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* The tables of a configuration: first the keys of one, then the tables in it. */}}
{{- define "fanfare.toml" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "fanfare.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $here := ternary $key (printf "%s.%s" $path $key) (empty $path) }}

[{{ $here }}]
{{- include "fanfare.toml" (dict "path" $here "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fanfare.config" -}}
{{- range $key := list "listen" "tls" }}
{{- if hasKey $.Values.config $key }}{{ fail (printf "config.%s is set by the chart itself" $key) }}{{ end }}
{{- end }}
{{- range $key := list "name" "drain_seconds" }}
{{- if hasKey (default dict $.Values.config.node) $key }}{{ fail (printf "config.node.%s is set by the chart itself" $key) }}{{ end }}
{{- end }}
{{- $node := merge (dict "drain_seconds" (int .Values.drainSeconds)) (default dict .Values.config.node) }}
{{- $own := dict "listen" (dict "public" "0.0.0.0:8000" "internal" "0.0.0.0:8001") "node" $node }}
{{- if .Values.tlsSecret }}{{ $_ := set $own "tls" (dict "cert" "/etc/fanfare/tls/tls.crt" "key" "/etc/fanfare/tls/tls.key") }}{{ end }}
{{- include "fanfare.toml" (dict "path" "" "table" (merge $own (deepCopy .Values.config))) | trim }}
{{- end }}
