// Pushes again and again over connections of an agent that keeps them, as prom-client does with `{agent}`.
//
// Arguments: the URL of the gateway, the number of pushers, the pushes of each, and the seconds between two.

const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');

const [url, pushers, pushes, interval] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const agent = new http.Agent({ keepAlive: true, maxSockets: pushers, maxFreeSockets: pushers });
const failures = [];

function push(number, round) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${url}/metrics/job/node/pusher/${number}`, { method: 'PUT', agent }, (response) => {
      response.resume();
      response.on('error', reject);
      response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(response.statusMessage))));
    });
    request.on('error', reject);
    request.end(`pooled ${round}\n`);
  });
}

async function pusher(number) {
  for (let round = 0; round < pushes; round++) {
    if (round > 0) await sleep(interval * 1000);
    await push(number, round).catch((error) => failures.push(`${error.code} ${error.message}`));
  }
}

Promise.all(Array.from({ length: pushers }, (_, number) => pusher(number))).then(() => {
  console.log(`failed ${failures.length} of ${pushers * pushes}`, ...failures.slice(0, 1));
  agent.destroy();
});
