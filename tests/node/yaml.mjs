// Reads YAML from stdin and prints its documents as one JSON array.
import { text } from 'node:stream/consumers';
import { loadAll } from 'js-yaml';

console.log(JSON.stringify(loadAll(await text(process.stdin))));
