// Pushes to the gateway given as the only argument with prom-client, as tests/clients/main.rs expects: once
// uncompressed, once with gzip. The library escapes slashes as %2F, which Pushgateway reads as separators, and writes an
// empty value as an empty path segment, which Pushgateway removes. So the program writes both in base64, which the name
// of the label says.
const fs = require('fs');
const { Gauge, Histogram, Pushgateway, Registry } = require('prom-client');

const url = process.argv[2];
const { PUSH_CA, PUSH_USER, PUSH_PASSWORD } = process.env;
/** What the gateway asks for, if it asks for anything. */
const secrets = PUSH_CA ? { ca: fs.readFileSync(PUSH_CA), auth: `${PUSH_USER}:${PUSH_PASSWORD}` } : {};

function gateway(gauges, options) {
  const registry = new Registry();
  for (const [name, value] of Object.entries(gauges)) {
    new Gauge({ name, help: 'Some help.', registers: [registry] }).set(value);
  }
  return [new Pushgateway(url, { ...options, ...secrets }, registry), registry];
}

async function run(jobName, options) {
  const path = Buffer.from('/var/tmp').toString('base64url');
  const groupings = { 'path@base64': path, 'empty@base64': '=', name: 'Προμηθεύς', space: 'a b+c%d' };
  const group = { jobName, groupings };
  await gateway({ client_old: 1 }, options)[0].push(group);
  const [pushed, registry] = gateway({ client_value: 41 }, options);
  new Histogram({ name: 'client_latency', help: 'Some help.', buckets: [0.1, 1], registers: [registry] }).observe(0.5);
  await pushed.push(group);
  await gateway({ client_value: 42, client_added: 7 }, options)[0].pushAdd(group);

  const gone = { jobName, groupings: { gone: 'yes' } };
  await gateway({ client_gone: 1 }, options)[0].push(gone);
  await gateway({})[0].delete(gone);
}

async function main() {
  await run('node client', {});
  await run('node client gzip', { headers: { 'Content-Encoding': 'gzip' } });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
