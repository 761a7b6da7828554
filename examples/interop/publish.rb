# Publishes an order from Ruby: ruby publish.rb shop orders '{"cents":1250}'
require "json"
require "redis"

namespace, topic, payload = ARGV
server = Redis.new(url: ENV.fetch("REDSTART_REDIS_URL"))
envelope = { type: "order.placed", payload: JSON.parse(payload) }
puts server.xadd("{#{namespace}:#{topic}}:log", { "json" => JSON.generate(envelope) })
