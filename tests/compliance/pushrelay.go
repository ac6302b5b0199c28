// The sender of a node for prometheus/compliance: what the scrape target shows is pushed to the node, which writes it to
// the receiver. scripts/compliance copies this file beside the others of the package.

package targets

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// RunPushrelay runs the node of the environment variable PUSHRELAY for the time that the options give.
func RunPushrelay(opts TargetOptions) error {
	folder, err := os.MkdirTemp("", "pushrelay")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	address, err := freeAddress()
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`
[web]
listen_address = %q
[push]
openmetrics = true
enable_utf8_names = true
timestamps = "strip"
[storage]
path = ""
[[remote_write]]
url = %q
name = "receiver"
interval = "1s"
protobuf_message = "io.prometheus.write.v2.Request"
send_native_histograms = true
`, address, opts.ReceiveEndpoint)
	file := filepath.Join(folder, "node.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(os.Getenv("PUSHRELAY"), "edge", "--config.file", file)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), opts.Timeout)
	defer cancel()
	for ctx.Err() == nil {
		// The node is not ready at first, and a push may be refused: the next one tries again.
		_ = pushPage(ctx, opts.ScrapeTarget, "http://"+address+"/metrics/job/test/instance/target")
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	_ = command.Process.Signal(syscall.SIGTERM)
	if err := command.Wait(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the node ended with %w:\n%s", err, text)
	}
	return nil
}

// pushPage gets the page of a scrape target, and pushes it.
func pushPage(ctx context.Context, page, group string) error {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	reply, err := http.DefaultClient.Do(get)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return err
	}
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, group, bytes.NewReader(body))
	if err != nil {
		return err
	}
	put.Header.Set("Content-Type", reply.Header.Get("Content-Type"))
	pushed, err := http.DefaultClient.Do(put)
	if err != nil {
		return err
	}
	defer pushed.Body.Close()
	if pushed.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(pushed.Body)
		return fmt.Errorf("the push is refused with %d: %s", pushed.StatusCode, text)
	}
	return nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
