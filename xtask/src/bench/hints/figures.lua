-- What wrk measured, as one line of numbers: requests, microseconds, p50 and p99 in microseconds, failures.
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("figures %d %d %.0f %.0f %d\n", summary.requests, summary.duration,
    latency:percentile(50.0), latency:percentile(99.0), failed))
end
