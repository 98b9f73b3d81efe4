// Go's net/http with a pool of pgx, in one process.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/jackc/pgx/v4/pgxpool"
)

// pgx prepares each statement once on a connection, by default.
const query = "SELECT id, username, email FROM users WHERE id > $1 ORDER BY id LIMIT $2"

type user struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Email    string `json:"email"`
}

func number(parameters url.Values, name string, absent int64) (int64, error) {
	if text := parameters.Get(name); text != "" {
		return strconv.ParseInt(text, 10, 64)
	}
	return absent, nil
}

func page(ctx context.Context, pool *pgxpool.Pool, after, limit int64) ([]user, error) {
	rows, err := pool.Query(ctx, query, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	users := []user{}
	for rows.Next() {
		var u user
		if err := rows.Scan(&u.ID, &u.Username, &u.Email); err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	connections, err := strconv.ParseInt(os.Getenv("CONNECTIONS"), 10, 32)
	if err != nil {
		log.Fatal("CONNECTIONS: ", err)
	}
	config.MinConns, config.MaxConns = int32(connections), int32(connections)
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/users", func(response http.ResponseWriter, request *http.Request) {
		parameters := request.URL.Query()
		after, err := number(parameters, "after", 0)
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		limit, err := number(parameters, "limit", 100)
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		users, err := page(request.Context(), pool, after, limit)
		if err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		response.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(response).Encode(users); err != nil {
			log.Print(err)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
