{{- define "groupcache.name" -}}
{{- .Values.nameOverride | default "groupcache" -}}
{{- end -}}

{{/*
The name of everything. A StatefulSet's name has at most 52 characters, since
Kubernetes adds a hash to it in a label.
*/}}
{{- define "groupcache.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "groupcache" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-groupcache" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "groupcache.selectorLabels" -}}
app.kubernetes.io/name: {{ include "groupcache.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "groupcache.labels" -}}
{{ include "groupcache.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "groupcache.caddyfile" -}}
{
	# Until all machines know that a pod ends, they send it clients.
	shutdown_delay 5s

	# To hand over and leave takes up to 5 seconds more, and the node is killed after {{ add .Values.gracePeriodSeconds 15 }}.
	grace_period {{ .Values.gracePeriodSeconds }}s

	groupcache {
		cache_size {{ .Values.cacheSize }}
		gossip [{$NODE_ADDRESS}]:7946
		peers [{$NODE_ADDRESS}]:8000
		join {{ include "groupcache.fullname" . }}-nodes
		secret {env.GROUPCACHE_SECRET}
{{- range .Values.options | trim | splitList "\n" }}
{{- with trim . }}
		{{ . }}
{{- end }}
{{- end }}
	}
}

{{ .Values.sites | trim }}

# For probes: it says that the node serves, whatever the application does.
http://:8081 {
	respond ok
}
{{- end -}}
