// Publishes an order from Go: go run publish.go shop orders '{"cents":1250}'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	options, err := redis.ParseURL(os.Getenv("REDSTART_REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	envelope, err := json.Marshal(map[string]any{"type": "order.placed", "payload": json.RawMessage(os.Args[3])})
	if err != nil {
		log.Fatal(err)
	}
	stream := fmt.Sprintf("{%s:%s}:log", os.Args[1], os.Args[2])
	added := redis.NewClient(options).XAdd(context.Background(), &redis.XAddArgs{Stream: stream, Values: []any{"json", envelope}})
	if added.Err() != nil {
		log.Fatal(added.Err())
	}
	fmt.Println(added.Val())
}
