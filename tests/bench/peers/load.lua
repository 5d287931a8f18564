-- wrk's side of a load. Words after `--`: a file of tokens or `-`, how many of them, then `Name: value` fields.
-- Each token is used in turn, one a request. Every request is built once, so that the client costs little for each.
local requests, count, last = {}, 0, 0

function init(words)
  local file, most = words[1], tonumber(words[2])
  for place = 3, #words do
    local name, value = words[place]:match("^([^:]+):%s*(.*)$")
    wrk.headers[name] = value
  end
  if file == "-" then
    count, requests[1] = 1, wrk.format("GET", wrk.path)
    return
  end
  for token in io.lines(file) do
    if count >= most then break end
    wrk.headers["Authorization"] = "Bearer " .. token
    count = count + 1
    requests[count] = wrk.format("GET", wrk.path)
  end
end

function request()
  last = last % count + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'JSON{"requests":%d,"seconds":%.4f,"p50_us":%d,"p99_us":%d,"p999_us":%d,"errors":%d,"refused":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
