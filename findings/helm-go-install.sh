#!/usr/bin/env bash
# helm from its Go module renders charts for Kubernetes 1.20, whatever its own version: the number is put in by the
# release's build. So `helm template` refuses a chart whose `kubeVersion` asks for a later Kubernetes, while `helm lint` of
# the same chart passes. `--kube-version` mends it.
# Version: helm.sh/helm/v3 v3.22.0 (Go module), built by `go install`. Needs: go 1.26 or later; compiles for minutes.
# Does: lints and renders a chart with `kubeVersion: ">=1.25.0-0"`, then renders it with --kube-version 1.37.
# Output:
#   lint: 0 chart(s) failed
#   template: incompatible with Kubernetes v1.20.0
#   template with --kube-version: v1.37
. "$(dirname "$0")/common.sh"
GOBIN=$work go install helm.sh/helm/v3/cmd/helm@v3.22.0 2> log || { cat log >&2; exit 1; }
mkdir -p chart/templates
printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\nkubeVersion: ">=1.25.0-0"\n' > chart/Chart.yaml
cat > chart/templates/object.yaml <<'END'
apiVersion: v1
kind: ConfigMap
metadata:
  name: object
data:
  version: {{ .Capabilities.KubeVersion }}
END
{
  ./helm lint chart | sed -n 's/.*, \(.* failed\)$/lint: \1/p'
  { ./helm template chart 2>&1 || true; } | sed -n 's/.*which is \(incompatible.*\)$/template: \1/p'
  ./helm template --kube-version 1.37 chart | sed -n 's/ *version: /template with --kube-version: /p'
} | check
