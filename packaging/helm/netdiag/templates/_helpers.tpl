{{/* Names, labels, and what the pods share. */}}

{{- define "netdiag.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "netdiag.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "netdiag.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "netdiag.name" .) | trunc 52 | trimSuffix "-" }}
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

{{- define "netdiag.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
