// Pushes again and again over pooled connections of net/http.
//
// Arguments: the URL of the gateway, the number of pushers, the pushes of each, and the seconds between two.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	pushers, _ := strconv.Atoi(os.Args[2])
	pushes, _ := strconv.Atoi(os.Args[3])
	seconds, _ := strconv.ParseFloat(os.Args[4], 64)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pushers}}
	var lock sync.Mutex
	var failures []string
	var group sync.WaitGroup
	for number := range pushers {
		group.Go(func() {
			url := fmt.Sprintf("%s/metrics/job/go/pusher/%d", os.Args[1], number)
			for round := range pushes {
				if round > 0 {
					time.Sleep(time.Duration(seconds * float64(time.Second)))
				}
				if err := push(client, url, round); err != nil {
					lock.Lock()
					failures = append(failures, err.Error())
					lock.Unlock()
				}
			}
		})
	}
	group.Wait()
	fmt.Printf("failed %d of %d %s\n", len(failures), pushers*pushes, strings.Join(failures[:min(1, len(failures))], ""))
}

func push(client *http.Client, url string, round int) error {
	request, err := http.NewRequest("PUT", url, strings.NewReader(fmt.Sprintf("pooled %d\n", round)))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != 200 {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}
