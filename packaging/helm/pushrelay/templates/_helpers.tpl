{{- define "pushrelay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pushrelay.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 58 | trimSuffix "-" }}
{{- else if contains (include "pushrelay.name" .) .Release.Name }}
{{- .Release.Name | trunc 58 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pushrelay.name" .) | trunc 58 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pushrelay.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "pushrelay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "pushrelay.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "pushrelay.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pushrelay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pushrelay.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "pushrelay.selectorLabels" . }}
app.kubernetes.io/component: {{ .Values.role }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Name of the Secret with web-config.yaml; empty without one. */}}
{{- define "pushrelay.webConfigSecret" -}}
{{- if dig "existingSecret" "name" "" .Values.webConfiguration }}
{{- .Values.webConfiguration.existingSecret.name }}
{{- else if .Values.webConfiguration.basicAuthUsers }}
{{- include "pushrelay.fullname" . }}-web
{{- end }}
{{- end }}

{{/* Name of the Secret with the node's certificate; empty without one. */}}
{{- define "pushrelay.tlsSecret" -}}
{{- if eq .Values.role "hub" }}{{ .Values.hub.tls.existingSecret }}{{ else if .Values.uplink.hub }}{{ .Values.uplink.tls.existingSecret }}{{ end }}
{{- end }}

{{- define "pushrelay.store" -}}
{{ printf "%s/store" (.Values.persistentVolume.mountPath | trimSuffix "/") }}
{{- end }}

{{/* A mistake in the values ends the installation with a sentence. */}}
{{- define "pushrelay.check" -}}
{{- $own := or .Values.config .Values.existingConfigSecret }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- fail "replicaCount must be 0 or 1: a node has its own store and its own certificate. Install the chart once for each node, under different names." }}
{{- end }}
{{- if and .Values.config .Values.existingConfigSecret }}
{{- fail "config and existingConfigSecret are both set: remove one of them." }}
{{- end }}
{{- if and $own .Values.extraConfig }}
{{- fail "extraConfig adds to the configuration that the chart makes: put it into your own configuration instead." }}
{{- end }}
{{- if and (eq .Values.role "hub") (not $own) (not .Values.hub.tls.existingSecret) }}
{{- fail "role hub needs hub.tls.existingSecret: a Secret with tls.crt, tls.key and ca.crt (the authority of the edges' certificates)." }}
{{- end }}
{{- if and (eq .Values.role "edge") .Values.uplink.hub (not $own) (not .Values.uplink.tls.existingSecret) }}
{{- fail "uplink.hub needs uplink.tls.existingSecret: a Secret with tls.crt, tls.key and ca.crt (the authority of the hub's certificate)." }}
{{- end }}
{{- if and (eq .Values.role "hub") .Values.uplink.hub (not $own) }}
{{- fail "role hub with uplink.hub is a relay, which needs two certificates: write its configuration in `config`, and mount the files by extraVolumes." }}
{{- end }}
{{- if and .Values.webConfiguration.basicAuthUsers (dig "existingSecret" "name" "" .Values.webConfiguration) }}
{{- fail "webConfiguration has basicAuthUsers and existingSecret: remove one of them." }}
{{- end }}
{{- if and .Values.networkPolicy.allowAll .Values.networkPolicy.customSelectors }}
{{- fail "networkPolicy has allowAll and customSelectors: remove one of them." }}
{{- end }}
{{- if and .Values.podAntiAffinity .Values.affinity.podAntiAffinity }}
{{- fail "podAntiAffinity and affinity.podAntiAffinity are both set: remove one of them." }}
{{- end }}
{{- end }}

{{/* Strings as a TOML array. JSON's strings are TOML's. */}}
{{- define "pushrelay.tomlLabels" -}}
{ {{- range $i, $name := keys . | sortAlpha }}{{ if $i }}, {{ end }}{{ $name | toJson }} = {{ index $ $name | toString | toJson }}{{ end -}} }
{{- end }}

{{/* The configuration file. */}}
{{- define "pushrelay.config" -}}
{{- if .Values.config }}
{{- tpl .Values.config . }}
{{- else }}
{{- if eq .Values.role "hub" }}
[hub]
listen_address = [":{{ .Values.hub.port }}"]
trust_edge_labels = {{ .Values.hub.trustEdgeLabels }}
allow = {{ .Values.hub.allow | toJson }}
required_labels = {{ .Values.hub.requiredLabels | toJson }}

[hub.tls]
cert_file = "/etc/pushrelay/tls/tls.crt"
key_file = "/etc/pushrelay/tls/tls.key"
client_ca_file = "/etc/pushrelay/tls/ca.crt"
{{- range $name := keys .Values.hub.edges | sortAlpha }}

[[hub.edge]]
name = {{ $name | toJson }}
labels = {{ include "pushrelay.tomlLabels" (index $.Values.hub.edges $name) }}
{{- end }}
{{- else if .Values.uplink.hub }}
[[uplink]]
hub = {{ .Values.uplink.hub | toJson }}

[uplink.tls]
cert_file = "/etc/pushrelay/tls/tls.crt"
key_file = "/etc/pushrelay/tls/tls.key"
ca_file = "/etc/pushrelay/tls/ca.crt"
{{- end }}

[log]
level = {{ .Values.log.level | toJson }}
format = {{ .Values.log.format | toJson }}
{{- with .Values.extraConfig }}

{{ tpl . $ | trim }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pod, the same in a Deployment and in a StatefulSet. */}}
{{- define "pushrelay.pod" -}}
metadata:
  annotations:
    {{- if not .Values.existingConfigSecret }}
    checksum/config: {{ include "pushrelay.config" . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "pushrelay.selectorLabels" . | nindent 4 }}
    app.kubernetes.io/component: {{ .Values.role }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "pushrelay.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.automountServiceAccountToken }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  # Variables of every Service in the namespace are of no use here.
  enableServiceLinks: false
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    - name: pushrelay
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - {{ .Values.role }}
        - --config.file=/etc/pushrelay/config/pushrelay.toml
        - --web.listen-address=:{{ .Values.service.targetPort }}
        - --storage.path={{ include "pushrelay.store" . }}
        - --web.open-paths=/-/healthy
        - --web.open-paths=/-/ready
        {{- if include "pushrelay.webConfigSecret" . }}
        - --web.config.file=/etc/pushrelay/web/web-config.yaml
        {{- end }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraVars }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ .Values.service.targetPort }}
          protocol: TCP
        {{- if eq .Values.role "hub" }}
        - name: link
          containerPort: {{ .Values.hub.port }}
          protocol: TCP
        {{- end }}
      {{- if .Values.startup.enabled }}
      startupProbe:
        {{- toYaml .Values.startup.probe | nindent 8 }}
      {{- end }}
      {{- if .Values.liveness.enabled }}
      livenessProbe:
        {{- toYaml .Values.liveness.probe | nindent 8 }}
      {{- end }}
      {{- if .Values.readiness.enabled }}
      readinessProbe:
        {{- toYaml .Values.readiness.probe | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.containerSecurityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: storage-volume
          mountPath: {{ .Values.persistentVolume.mountPath }}
          {{- with .Values.persistentVolume.subPath }}
          subPath: {{ . }}
          {{- end }}
        - name: config
          mountPath: /etc/pushrelay/config
          readOnly: true
        {{- if include "pushrelay.tlsSecret" . }}
        - name: tls
          mountPath: /etc/pushrelay/tls
          readOnly: true
        {{- end }}
        {{- if include "pushrelay.webConfigSecret" . }}
        - name: web-config
          mountPath: /etc/pushrelay/web
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .Values.podAntiAffinity .Values.affinity }}
  affinity:
    {{- with .Values.affinity }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if .Values.podAntiAffinity }}
    podAntiAffinity:
      {{- $term := dict "topologyKey" .Values.podAntiAffinityTopologyKey "labelSelector" (dict "matchLabels" (dict "app.kubernetes.io/name" (include "pushrelay.name" .) "app.kubernetes.io/component" .Values.role)) }}
      {{- if eq .Values.podAntiAffinity "hard" }}
      requiredDuringSchedulingIgnoredDuringExecution:
        {{- toYaml (list $term) | nindent 8 }}
      {{- else }}
      preferredDuringSchedulingIgnoredDuringExecution:
        {{- toYaml (list (dict "weight" 100 "podAffinityTerm" $term)) | nindent 8 }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumes:
    {{- if not .Values.persistentVolume.enabled }}
    - name: storage-volume
      emptyDir: {}
    {{- else if or .Values.persistentVolume.existingClaim (not .Values.runAsStatefulSet) }}
    - name: storage-volume
      persistentVolumeClaim:
        claimName: {{ .Values.persistentVolume.existingClaim | default (include "pushrelay.fullname" .) }}
    {{- end }}
    - name: config
      {{- if .Values.existingConfigSecret }}
      secret:
        secretName: {{ .Values.existingConfigSecret }}
      {{- else }}
      configMap:
        name: {{ include "pushrelay.fullname" . }}
      {{- end }}
    {{- with include "pushrelay.tlsSecret" . }}
    - name: tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with include "pushrelay.webConfigSecret" . }}
    - name: web-config
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* What a claim asks for, the same in a PersistentVolumeClaim and in a StatefulSet's template. */}}
{{- define "pushrelay.claimSpec" -}}
accessModes:
  {{- toYaml .Values.persistentVolume.accessModes | nindent 2 }}
{{- with .Values.persistentVolume.storageClass }}
storageClassName: {{ if eq . "-" }}""{{ else }}{{ . }}{{ end }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.persistentVolume.size }}
{{- end }}
