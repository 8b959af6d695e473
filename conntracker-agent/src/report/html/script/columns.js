// Columns of the document: deflated, as base64. Rust's report/html/columns.rs writes them.

const inflate = async (base64) => {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
};

// Seven bits to a byte, the lowest first; the highest bit says that more follow.
const decode = (bytes) => {
  let count = 0;
  for (const byte of bytes) count += byte < 128;
  const numbers = new Float64Array(count);
  let [value, scale, most, at] = [0, 1, 0, 0];
  for (const byte of bytes) {
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte < 128) {
      numbers[at++] = value;
      most = Math.max(most, value);
      [value, scale] = [0, 1];
    }
  }
  if (most < 2 ** 8) return Uint8Array.from(numbers);
  if (most < 2 ** 16) return Uint16Array.from(numbers);
  return most < 2 ** 32 ? Uint32Array.from(numbers) : numbers;
};

const columns = {};
await Promise.all(Array.from(document.querySelectorAll("script[data-json], script[data-numbers]"), async (element) => {
  const bytes = await inflate(element.textContent);
  const { json, numbers } = element.dataset;
  if (json) columns[json] = JSON.parse(new TextDecoder().decode(bytes));
  else columns[numbers] = decode(bytes);
  element.remove();
}));
