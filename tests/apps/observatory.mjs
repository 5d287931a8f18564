// Scans https://HOST/ with the MDN HTTP Observatory and prints its result as JSON.
//
//   node observatory.mjs HOST HTTP_PORT HTTPS_PORT
//
// Retrieval, tests and grades are the Observatory's own. It insists on ports 80 and 443 of a public host, so connections
// to these are led to the given ports of this machine, whatever the host is called; certificates are checked all the same.

import net from "node:net";

const [host, httpPort, httpsPort] = process.argv.slice(2);
const ports = new Map([[80, Number(httpPort)], [443, Number(httpsPort)]]);

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  // Node hands over either the options themselves or a list that starts with them.
  const options = Array.isArray(given[0]) ? given[0][0] : given[0];
  const port = ports.get(Number(options.port));
  if (port === undefined) {
    throw new Error(`not a port of the scanned host: ${options.port}`);
  }
  Object.assign(options, { port, host: "127.0.0.1" });
  return connect.apply(this, given);
};

const { scan } = await import("@mdn/mdn-http-observatory");
const result = await scan(host);
process.stdout.write(JSON.stringify(result, null, 1));
