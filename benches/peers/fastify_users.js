// Fastify in two processes, each with a pool of connections. The first argument is the driver.
'use strict'
const cluster = require('node:cluster')

const [driver] = process.argv.slice(2)
const url = process.env.DATABASE_URL
const max = Number(process.env.CONNECTIONS)
const select = (after, limit) => `SELECT id, username, email FROM users WHERE id > ${after} ORDER BY id LIMIT ${limit}`
// The type id of bigint, which the drivers return as text by default.
const BIGINT = 20

const drivers = {
  pg () {
    const { Pool, types } = require('pg')
    types.setTypeParser(BIGINT, Number)
    const pool = new Pool({ connectionString: url, max })
    // pg prepares statements that have a name.
    const query = { name: 'users', text: select('$1', '$2') }
    return async (after, limit) => (await pool.query({ ...query, values: [after, limit] })).rows
  },
  postgres () {
    const bigint = { to: BIGINT, from: [BIGINT], serialize: String, parse: Number }
    const sql = require('postgres')(url, { max, types: { bigint } })
    return (after, limit) => sql`SELECT id, username, email FROM users WHERE id > ${after} ORDER BY id LIMIT ${limit}`
  },
  mysql2 () {
    const pool = require('mysql2/promise').createPool({ uri: url, connectionLimit: max })
    const query = select('?', '?')
    // As strings, because mysql2 binds numbers as DOUBLE, which is not valid for LIMIT.
    return async (after, limit) => (await pool.execute(query, [String(after), String(limit)]))[0]
  },
  'better-sqlite3' () {
    const database = require('better-sqlite3')(new URL(url).pathname, { readonly: true })
    const query = database.prepare(select('?', '?'))
    return (after, limit) => query.all(after, limit)
  }
}

const user = {
  type: 'object',
  properties: { id: { type: 'integer' }, username: { type: 'string' }, email: { type: 'string' } }
}
const schema = {
  querystring: {
    type: 'object',
    properties: { after: { type: 'integer', default: 0 }, limit: { type: 'integer', default: 100 } }
  },
  // Fastify generates a serialiser from the schema.
  response: { 200: { type: 'array', items: user } }
}

if (cluster.isPrimary) {
  for (let process = 0; process < 2; process++) cluster.fork()
} else {
  const fetch = drivers[driver]()
  const app = require('fastify')()
  app.get('/users', { schema }, async (request) => fetch(request.query.after, request.query.limit))
  app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
}
