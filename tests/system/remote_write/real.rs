//! Real receivers hold what a real Prometheus that scrapes the same hub holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Folder, Node, Process, Site, eventually, http, protobuf, skip};

use crate::prometheus::{free_address, newest_prometheus, start_with};
use crate::prometheus_forms::{family, native};

const SCRAPE: &str = "
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: node
  honor_labels: true
  static_configs:
    - targets: ['NODE']
      labels: {instance: i}
";

const NATIVE: &str = "--enable-feature=native-histograms";

/// Everything that a summary, a histogram, a label and a value may be.
const PUSH: &str = "\
# TYPE h histogram
h_bucket{le=\"1\"} 1
h_bucket{le=\"2.5\"} 2
h_bucket{le=\"+Inf\"} 3
h_sum 4
h_count 3
# TYPE s summary
s{quantile=\"0.5\"} 1
s{quantile=\"1\"} 2
s_sum 3
s_count 2
# TYPE g gauge
g{a=\"\",b=\"x\"} NaN
g{b=\"y\\\"\\\\\\n\"} -0
g{b=\"z\"} +Inf
# TYPE c counter
c 1e6
{\"utf8.name\",\"lab.el\"=\"ä\"} 7
";

/// The labels of series, without `v`, and their values or histograms.
type HeldSeries = BTreeMap<String, String>;

/// The series that a server holds, by the value of their label `v`.
fn held(address: SocketAddr) -> Option<BTreeMap<String, HeldSeries>> {
    // VictoriaMetrics leaves out the last 30 s otherwise.
    let path = "/api/v1/query?query=%7B__name__%21%3D%22%22%7D&latency_offset=1ms";
    let reply = http::request(address, "GET", path, &[], b"").ok()?;
    let mut json = (reply.status == 200).then(|| reply.json())?;
    let mut held = BTreeMap::<String, HeldSeries>::new();
    for item in json["data"]["result"].as_array_mut()? {
        // A tick does not know how many series are new to the receiver.
        if item["metric"]["__name__"] == "scrape_series_added" {
            continue;
        }
        let sender = item["metric"].as_object_mut()?.remove("v");
        // Protobuf has -0, the text format has not; and VictoriaMetrics rounds to 15 digits or so.
        let value = match item["value"][1].as_str().map(str::parse::<f64>) {
            Some(value) => format!("{:.13e}", value.unwrap() + 0.0),
            None => item["histogram"][1].to_string(),
        };
        let sender = sender.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        held.entry(sender).or_default().insert(item["metric"].to_string(), value);
    }
    Some(held)
}

/// The values of pushed series; those of the node itself differ from moment to moment.
fn pushed(series: &HeldSeries) -> Vec<(&String, &String)> {
    series.iter().filter(|(labels, _)| !labels.contains("\"job\":\"node\"")).collect()
}

struct Receivers {
    scraper: SocketAddr,
    prometheus: SocketAddr,
    victoria_metrics: Option<SocketAddr>,
}

impl Receivers {
    /// Waits until every receiver holds the series that the scraper holds, with `groups` groups among them.
    fn agree(&self, what: &str, groups: usize) {
        let agreed = || {
            let scraped = held(self.scraper)?.remove("").unwrap_or_default();
            let times = scraped.keys().filter(|labels| labels.contains("\"push_time_seconds\"")).count();
            let written = held(self.prometheus)?;
            let [v1, v2] = ["1", "2"].map(|version| written.get(version).cloned().unwrap_or_default());
            let is_equal = |held: &HeldSeries, scraped: &HeldSeries| {
                scraped.keys().eq(held.keys()) && pushed(scraped) == pushed(held)
            };
            let mut all = times == groups && is_equal(&v1, &scraped) && is_equal(&v2, &scraped);
            if let Some(address) = self.victoria_metrics {
                // It stores no NaN, and native histograms in another form.
                let mut scraped = scraped;
                scraped.retain(|labels, value| value != "NaN" && !labels.contains("\"__name__\":\"native"));
                all &= is_equal(held(address)?.get("").unwrap_or(&HeldSeries::new()), &scraped);
            }
            all.then_some(())
        };
        eventually(what, || {
            let found = agreed();
            if found.is_none() {
                // Three servers answer each question.
                std::thread::sleep(Duration::from_millis(100));
            }
            found
        });
    }
}

fn victoria_metrics(binary: &Path, folder: &Folder) -> (Process, SocketAddr) {
    let address = free_address();
    let mut command = Command::new(binary);
    command.arg(format!("-storageDataPath={}", folder.path().join("data").display()));
    command.arg(format!("-httpListenAddr={address}")).args(["-retentionPeriod=1d", "-dedup.minScrapeInterval=1ms"]);
    (Process::spawn(&mut command), address)
}

#[test]
fn real_receivers_hold_what_a_scraper_holds() {
    let binary = match newest_prometheus() {
        Ok(binary) => binary,
        Err(reason) => return skip(&reason),
    };
    let folders = [(); 3].map(|()| Folder::new());
    let flags = ["--web.enable-remote-write-receiver", NATIVE];
    let (_receiver, prometheus) = start_with(binary, &folders[0], "global: {}", &flags);
    let vm = binary.with_file_name("victoria-metrics");
    let vm = vm.exists().then(|| victoria_metrics(&vm, &folders[1]));
    if vm.is_none() {
        skip("no VictoriaMetrics to be had: only Prometheus is compared");
    }
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/remote-write.md")).unwrap();
    // The section of the how-to, with the receiver's address.
    let section = |host: &str, receiver: SocketAddr, name: &str, more: &str| {
        let mut blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let block = blocks.find(|block| block.contains(host)).unwrap_or_else(|| panic!("no {host} in the how-to"));
        let block = block.replace(host, &receiver.to_string()).replace("\nname = \"", &format!("\nname = \"{name}"));
        format!("{block}interval = '1s'\njob = 'node'\ninstance = 'i'\n{more}")
    };
    let natives = "send_native_histograms = true\n";
    let v2 = format!("protobuf_message = 'io.prometheus.write.v2.Request'\nexternal_labels = {{ v = '2' }}\n{natives}");
    let host = "prometheus.example.org:9090";
    let mut sections = section(host, prometheus, "1", &format!("external_labels = {{ v = '1' }}\n{natives}"));
    sections += &section(host, prometheus, "2", &v2);
    if let Some((_, address)) = &vm {
        sections += &section(
            "victoria.example.org:8428",
            *address,
            "",
            "match = ['{__name__=~\".+\",__name__!~\"native.*\"}']\n",
        );
    }
    let site = Site::new();
    let push = "[push]\nenable_utf8_names = true\n[[remote_write]]";
    let config = site.hub_config("hub") + &sections.replacen("[[remote_write]]", push, 1);
    let mut hub =
        Node::new(Role::Hub, site.path(), "hub", &config.replacen("[web]", "[web]\nenable_admin_api = true", 1));
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&["--push.enable-utf8-names"]);
    edge.start();
    let scrape = SCRAPE.replace("NODE", &hub.web().to_string());
    let (_scraper, scraper) = start_with(binary, &folders[2], &scrape, &[NATIVE]);
    let receivers = Receivers { scraper, prometheus, victoria_metrics: vm.as_ref().map(|(_, address)| *address) };

    edge.put("job/a/instance/i1", PUSH);
    hub.put("job/b", &PUSH.replace("NaN", "1"));
    let content_type = [("Content-Type", protobuf::MEDIA_TYPE)];
    let reply = edge.request("PUT", "/metrics/job/native", &content_type, &family("native", native()));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let expiring = [("Pushrelay-Expire-After", "1s")];
    assert_eq!(hub.request("PUT", "/metrics/job/short", &expiring, b"short 1\n").status, 200);
    receivers.agree("after pushes and an expiry", 3);
    edge.put("job/a/instance/i1", "# TYPE g gauge\ng{b=\"x\"} 5\n");
    edge.delete("job/native");
    receivers.agree("after a PUT with fewer series, and a delete", 2);
    let reply = hub.request("PUT", "/api/v1/edges/syq-1/retire?groups=delete", &[], b"");
    assert_eq!(reply.status, 202, "{}", reply.text());
    receivers.agree("after an edge is retired", 1);
}
