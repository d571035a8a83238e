{{/* Names, labels, and what the pods share. */}}

{{- define "netdiag.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* 45, so that what is put behind it (`-gateway-operation`) leaves it at 63, the most that a name in DNS may have. */}}
{{- define "netdiag.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains (include "netdiag.name" .) .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "netdiag.name" .) | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "netdiag.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: netdiag
{{ include "netdiag.selector" . }}
{{- end }}

{{- define "netdiag.selector" -}}
app.kubernetes.io/name: {{ include "netdiag.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "netdiag.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "netdiag.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "netdiag.image" -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end }}

{{/* The flag that says who may ask. */}}
{{- define "netdiag.auth" -}}
{{- if .Values.auth.existingSecret -}}
--auth-token-file=/run/secrets/netdiag/token
{{- else if .Values.auth.disabled -}}
--no-auth
{{- else -}}
{{- fail "say who may ask: auth.existingSecret, or auth.disabled=true" -}}
{{- end -}}
{{- end }}

{{- define "netdiag.volumes" -}}
{{- if .Values.auth.existingSecret }}
- name: token
  secret:
    secretName: {{ .Values.auth.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.auth.key | quote }}, path: token}
{{- end }}
- name: state
  emptyDir: {sizeLimit: 64Mi}
{{- end }}

{{- define "netdiag.mounts" -}}
{{- if .Values.auth.existingSecret }}
- {name: token, mountPath: /run/secrets/netdiag, readOnly: true}
{{- end }}
- {name: state, mountPath: /var/lib/netdiag}
{{- end }}

{{/* The probes of a listener that answers /livez and /readyz, which ask for no token. */}}
{{- define "netdiag.livez" -}}
httpGet: {path: /livez, port: {{ .port }}}
periodSeconds: 10
timeoutSeconds: 2
failureThreshold: 3
{{- end }}

{{/* Where a pod listens: its own addresses, of both kinds where it has both and one is IPv6. */}}
{{- define "netdiag.anywhere" -}}
{{ ternary "[::]" "0.0.0.0" .Values.gateway.ipv6 }}
{{- end }}

{{/* How long a pod waits before it is told to stop; nothing before Kubernetes 1.30, which has no such wait without a shell. */}}
{{- define "netdiag.preStop" -}}
{{ ternary (int .Values.gateway.preStopSeconds) 0 (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- end }}

{{- define "netdiag.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
