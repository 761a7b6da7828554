// Reads an AsyncAPI document from stdin and prints each error and warning. Exit code 1 if there is one.
import { text } from 'node:stream/consumers';
import { Parser } from '@asyncapi/parser';

const WARNING = 1;
const { document, diagnostics } = await new Parser().parse(await text(process.stdin));
const faults = diagnostics.filter(({ severity }) => severity <= WARNING);
for (const { code, message, path } of faults) {
  console.log(`${code} at ${path.join('/')}: ${message}`);
}
if (faults.length > 0 || !document) {
  process.exit(1);
}
console.log(`valid: AsyncAPI ${document.version()}`);
